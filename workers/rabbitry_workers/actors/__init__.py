"""Actor hosts: processes that hold one actor instance each."""
