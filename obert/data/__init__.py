"""Where models and data come from: pinned wheels, folders, the Hub; splits and packed text."""
