"""A package of ament_python: colcon build finds it by package.xml beside it."""

from setuptools import setup

NAME = "gcpp_edge_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=["setuptools", "gcpp-edge"],
    zip_safe=True,
    entry_points={"console_scripts": [f"explain_node = {NAME}.explain_node:main"]},
)
