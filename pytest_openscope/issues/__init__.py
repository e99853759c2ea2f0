"""One GitHub issue per defect: fingerprint, issue text, outbox, GitHub client.

A session builds reports (:func:`.report.build_report`) and puts them whole into an outbox on disk (:func:`.outbox.enqueue`).
Another process sends them (:func:`.outbox.drain`), in worker processes that are killed at a deadline.
"""
