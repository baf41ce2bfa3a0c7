"""`ray.experimental.internal_kv`: put, get, exists, delete, list, namespaces, text and bytes, what is refused."""

import ray
from _report import attempt, show, start
from ray.experimental import internal_kv as kv

show("before init", kv._internal_kv_initialized())
start()
show("initialized", kv._internal_kv_initialized())
show("put", [kv._internal_kv_put("a", "1"), kv._internal_kv_put(b"a", "2"), kv._internal_kv_put("a", "3", False)])
show("put a new one without overwriting", kv._internal_kv_put(b"b", b"\xff\0", overwrite=False))


def text(values):
    return [value if value is None else value.decode("latin-1") for value in values]


show("get", text([kv._internal_kv_get("a"), kv._internal_kv_get(b"b"), kv._internal_kv_get("missing")]))
show("of another namespace", text([kv._internal_kv_get("a", namespace="n")]))
show("put there", [kv._internal_kv_put("a", "n", namespace="n"), kv._internal_kv_put("ab", "n", namespace=b"n")])
show("list", [text(sorted(kv._internal_kv_list("a", namespace="n"))), text(kv._internal_kv_list(b"a"))])
show("list nothing", kv._internal_kv_list("zzz"))
kv._internal_kv_put("*x", "x", namespace="g")
kv._internal_kv_put("yx", "x", namespace="g")
show("a prefix is no pattern", text(kv._internal_kv_list("*", namespace="g")))
show("exists", [kv._internal_kv_exists("a"), kv._internal_kv_exists(b"a"), kv._internal_kv_exists("q")])
show("del", [kv._internal_kv_del("a"), kv._internal_kv_del(b"a"), kv._internal_kv_exists("a")])
show("del by prefix", [kv._internal_kv_del("a", del_by_prefix=True, namespace="n")])
show("all gone", kv._internal_kv_list("", namespace="n"))
kv._internal_kv_put("", "of an empty key")
kv._internal_kv_put("e", "")
show("empty", text([kv._internal_kv_get(""), kv._internal_kv_get("e")]))
show("an empty value is there", kv._internal_kv_put("e", "x", False))
kv._internal_kv_put("nn", "x", namespace="")
show("the empty namespace is none", text([kv._internal_kv_get("nn")]))
attempt("a key that is no text", lambda: kv._internal_kv_put(1, "x"))
attempt("a value that is no text", lambda: kv._internal_kv_put("x", 1))
attempt("overwrite that is no bool", lambda: kv._internal_kv_put("x", "x", 1))
attempt("no key", lambda: kv._internal_kv_get(None))
attempt("no prefix", lambda: kv._internal_kv_list(None))
attempt("a namespace that is no text", lambda: kv._internal_kv_get("a", namespace=3))


@ray.remote
def add():
    kv._internal_kv_put("from a task", "1", namespace="tasks")
    return kv._internal_kv_initialized()


show("in a task", [ray.get(add.remote()), text([kv._internal_kv_get("from a task", namespace="tasks")])])
ray.shutdown()
