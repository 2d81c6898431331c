"""The trained network in use: `digits` reads image files, `build_page` makes docs/index.html."""
