"""Teacher and student, and mmdet's parts in versions that hardly wait for the device."""
