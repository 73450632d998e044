// spec: cooperative matrices of 16 by 16, which a subgroup multiplies as one operation. Halves in, f32 sums.

alias FragmentA = coop_mat16x16<f16, A>;
alias FragmentB = coop_mat16x16<f16, B>;
alias FragmentSum = coop_mat16x16<f32, C>;
