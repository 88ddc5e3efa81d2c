"""Reading what other people wrote: pictures, arrays, archives and weights, each bounded before it is read."""
