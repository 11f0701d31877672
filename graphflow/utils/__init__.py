"""What training needs beside modules and optimisers: data loading."""
