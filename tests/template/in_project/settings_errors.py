"""What the project says of each environment: JSON, a line each, both ways."""

import json
import os
import sys
import traceback
from unittest.mock import patch

from settings import Settings

for line in sys.stdin:
    with patch.dict(os.environ, json.loads(line)):
        try:
            Settings()
        except ValueError:
            print(json.dumps(traceback.format_exc()))
        else:
            print(json.dumps(""))
