"""HTTP/1.1 on the wire: listener, hot paths, splice proxy, sendfile."""
