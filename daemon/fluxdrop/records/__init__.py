"""Result and error records, and the files that belong to them."""
