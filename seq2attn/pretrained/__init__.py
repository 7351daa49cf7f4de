"""Models from elsewhere: folders of other tools become runs, and runs come from the hub and go there."""
