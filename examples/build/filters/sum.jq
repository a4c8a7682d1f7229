{ sum: ([.data.items[][$field]] | add) }
