# on Colab and Kaggle this cell installs what is missing there, never torch or numpy; anywhere else it does nothing
import os

if os.environ.keys() & {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"}:
    import subprocess
    import sys
    from importlib.metadata import requires, version

    theirs = ("torch", "numpy", "ipywidgets", "jupyterlab")  # as they are there
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-warn-conflicts"]
    subprocess.run([*pip, "--no-deps", "git+https://github.com/OWNER/sdlearn"], check=True)
    needs = [need for need in requires("sdlearn") if need.split(">")[0] not in theirs]
    subprocess.run([*pip, *needs, *(f"{name}=={version(name)}" for name in theirs[:3])], check=True)
