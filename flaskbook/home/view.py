"""The front page. It needs no database but to know who is logged in."""

from __future__ import annotations

from flask import Blueprint, render_template

home_app = Blueprint("home", __name__, template_folder="templates")


@home_app.get("/")
def index() -> str:
    """Show what this is and where to begin."""
    return render_template("home/index.html")
