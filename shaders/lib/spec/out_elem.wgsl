// spec: what a matrix product writes: results, as activations.

import package::spec::{Elem4};

alias Out4 = Elem4;
