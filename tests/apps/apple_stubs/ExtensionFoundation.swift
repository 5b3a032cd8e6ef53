// The extension point of the downloader; nothing of it is named in our sources.
