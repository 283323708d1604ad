"""What a scrape of any worker shows of the whole box."""
