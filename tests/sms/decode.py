#!/usr/bin/python3
"""Decodes SMS-SUBMIT PDUs with gammu: hex digits in, a line each; JSON out, a line each.

Ends with 77 when gammu's Python module is not installed.
"""

import json
import sys

try:
    import gammu
except ImportError:
    sys.exit(77)

for line in sys.stdin:
    message = gammu.DecodePDU(bytes.fromhex(line.strip()))
    header = message["UDH"]
    wide = header["ID16bit"] != -1
    print(
        json.dumps(
            {
                # As many characters as septets, also where two septets are one: what follows the zero is memory.
                "text": message["Text"].split("\0")[0],
                "to": message["Number"],
                "reference": header["ID16bit"] if wide else header["ID8bit"],
                "number": header["PartNumber"],
                "total": header["AllParts"],
                "class": message["Class"],
                "version": gammu.Version()[2],
            }
        )
    )
