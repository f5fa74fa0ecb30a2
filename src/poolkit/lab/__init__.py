"""The lab: data, nets and training. Nothing here is imported by the pooling layers."""
