"""The pages of `rabbitry dashboard`: what is in a cluster, live in a browser.

```
mount       puts the pages into the service
pages/      one module for each kind of thing
actions     questions before something is cancelled or killed
frame       what all pages have around them
table       filters     live tables, and what narrows them
live        brings the parts of a page up to date, each second
elements    charts      what pages are made of
readings    what was read, shared by all browsers
paging      formats
source      what pages know of a cluster: rows, and an interface; `cluster/` is the real one
```
"""
