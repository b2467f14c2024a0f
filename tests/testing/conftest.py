"""The project that the plugin is shown on has a pytest of its own."""

collect_ignore = ["plugin_project"]
