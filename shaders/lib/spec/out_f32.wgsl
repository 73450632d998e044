// spec: what a matrix product writes: sums over parts of k, which are to be added.

alias Out4 = vec4<f32>;
