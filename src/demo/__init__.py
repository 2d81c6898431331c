"""The trained network in use: `digits` reads image files, `page` makes docs/index.html."""
