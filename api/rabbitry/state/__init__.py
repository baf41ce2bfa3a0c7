"""What can be seen of a cluster: read from its store, without taking part in it. Faces: `rabbitry.util.state`, REST."""
