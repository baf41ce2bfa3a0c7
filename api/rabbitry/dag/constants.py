"""Keys under which nodes keep what is not an argument (`get_other_args_to_resolve()`)."""

PARENT_CLASS_NODE_KEY = "parent_class_node"
"""The actor of a method's call: a handle, or the node that creates it."""

PREV_CLASS_METHOD_CALL_KEY = "prev_class_method_call"
"""The call of the same actor that was bound before: it is sent first."""

BIND_INDEX_KEY = "bind_index"
"""Where the call stands among those bound by this process; a graph sends its calls in this order."""

IS_CLASS_METHOD_OUTPUT_KEY = "is_class_method_output"
"""True for one of several results of a call."""
