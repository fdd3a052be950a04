"""Speed and memory of training and drawing, measured on this machine beside two yardsticks."""
