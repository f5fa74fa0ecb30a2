"""The explorer: a local page on which picture, window, formula, output and gradient move together, for every method.

`asked.py` reads what the page wants to see, `scene.py` computes it with the layers themselves, `server.py` answers
one browser on this machine. The page holds no mathematics: what it shows is what the library computed.
"""

#: The page's scripts, in the order in which they are read.
SCRIPTS = ("view.js", "grids.js", "cards.js", "controls.js", "net.js", "held.js", "page.js")
