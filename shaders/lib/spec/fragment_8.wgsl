// spec: cooperative matrices of 8 by 8, which a subgroup multiplies as one operation. Halves in, f32 sums.

alias FragmentA = coop_mat8x8<f16, A>;
alias FragmentB = coop_mat8x8<f16, B>;
alias FragmentSum = coop_mat8x8<f32, C>;
