"""What the site is made with: pages and pictures that follow from the code. `docs/build.py` calls it."""
