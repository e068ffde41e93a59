"""What keeps runs moving: ``channel`` speaks with one worker, ``sweeper`` looks after time."""
