"""The agent process of a node: intake, admission, dispatch, supervision."""
