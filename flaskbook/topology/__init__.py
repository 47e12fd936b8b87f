"""The live topology page: a picture of the deployment that the app is connected to. See :mod:`.view`."""
