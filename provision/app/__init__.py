"""The app on a deployment: found, launched, served."""
