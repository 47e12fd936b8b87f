"""Port, path, and for how many seconds to ask: prints the status of the last answer; 0: it did not answer."""

import http.client
import sys
import time

port, path, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
deadline = time.monotonic() + seconds
while True:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        status = 0
    connection.close()
    if time.monotonic() > deadline or (status and (status < 400 or status == 404)):
        break
    time.sleep(0.05)
print(status)
