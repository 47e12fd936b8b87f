"""Real MongoDB for tests: the machinery behind `provision.testing.plugin`.

`request` says which server a test wants, `run` is one run of pytest and what it leaves on this machine,
`servers` shares a run's servers between its workers; `processes`, `container` and `existing` are the three
ways to have one. `databases` makes and drops a test's database, `report` tells what MongoDB did while a test
failed, `application` builds the app under test.
"""
