"""Which Python this is, as JSON: what decides which wheels fit."""

import json
import os
import platform
import sys
import sysconfig


def has(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


version = ".".join(map(str, sys.version_info[:3]))
series = sys.version_info[:2]
libc, number = platform.libc_ver()
free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print(
    json.dumps(
        {
            "executable": sys.executable,
            "version": version,
            "abi": "cp" + "".join(map(str, series)) + free_threaded,
            "glibc": int(number.split(".")[1]) if libc == "glibc" else None,
            "machine": platform.machine(),
            "venv": has("venv"),
            "markers": {
                "implementation_name": sys.implementation.name,
                "implementation_version": version,
                "os_name": os.name,
                "platform_machine": platform.machine(),
                "platform_python_implementation": platform.python_implementation(),
                "platform_release": platform.release(),
                "platform_system": platform.system(),
                "platform_version": platform.version(),
                "python_full_version": platform.python_version(),
                "python_version": ".".join(map(str, series)),
                "sys_platform": sys.platform,
            },
        }
    )
)
