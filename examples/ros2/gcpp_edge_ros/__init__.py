"""A ROS 2 node that explains a camera's images."""
