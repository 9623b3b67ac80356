"""What runs on every host: starts, stops and watches the processes of a job there, without torch."""
