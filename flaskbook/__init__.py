"""flaskbook: a small people book on Flask and MongoDB, the application this project's tool brings up."""
