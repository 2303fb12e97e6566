"""An adapter that says what its command line tells it to: one argument for each line that it is sent.

``@die`` ends it, ``@hang`` lets it sleep, ``@close`` closes its output, ``@status`` answers {} and later ends with 3;
after the last argument every line is answered by {}.
"""

import os
import sys
import time

status = 0
for number, _line in enumerate(sys.stdin, 1):
    answer = sys.argv[number] if number < len(sys.argv) else "{}"
    if answer == "@die":
        sys.exit(7)
    elif answer == "@hang":
        time.sleep(60)
    elif answer == "@close":
        os.close(1)
        time.sleep(60)
    elif answer == "@status":
        status = 3
        answer = "{}"
    elif answer == "@bytes":
        os.write(1, b"\xff\n")
        continue
    elif answer == "@flood":
        os.write(1, b"x" * 3_000_000)
        continue
    print(answer, flush=True)
if "@linger" in sys.argv:
    time.sleep(60)
if "@afterword" in sys.argv:
    print("one more thing")
sys.exit(status)
