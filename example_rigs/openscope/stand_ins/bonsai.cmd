@python -u "%~dp0bonsai.py" %*
