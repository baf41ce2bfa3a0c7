"""The parts of a node, and who is told what by whom: the only place that knows all of them.

One class a floor, each on top of the one before it; `Parts` is the last. What a part takes from below it is handed to
it where it is built. What it says to one above it is a callback: either it is looked up when it is called, and then the
head of the class names the parts above that are meant, or `tied` sets it.

| a part that ...                                        | is built in  |
|--------------------------------------------------------|--------------|
| all others share: store, loop, ledger, lanes, queues   | `model`      |
| says how tasks end (`node.outcome`), or cancels        | `outcome`    |
| knows of room: windows of queues, groups, turns, pool  | `room`       |
| hosts actors (`node.actors`)                           | `actors`     |
| runs work: dispatcher, what executors say, crashes     | `running`    |
| takes work in or gives it back (`node.intake`)         | `intake`     |
| does something time and again, or answers others       | `services`   |
| is told of something above it                          | `tied`       |
"""
