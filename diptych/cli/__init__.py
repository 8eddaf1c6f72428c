"""The command line: one file a verb, all light to import; torch is imported when a verb runs."""
