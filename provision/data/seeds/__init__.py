"""Seeds: files of a project that every database of it begins with. docs/seeds.md describes them."""
