// spec: activations stored in half precision; every kernel computes in f32.

alias Elem = f16;
alias Elem4 = vec4<f16>;
