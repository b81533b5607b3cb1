"""What the asynchronous transports share: their verbs, streams and sessions. It imports neither trio nor asyncio."""
