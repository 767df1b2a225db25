# Operators that move elements about.

operator(op -> Flatten(int(op, "axis")), "Flatten")

operator("Reshape") do op
    only_value(op, "allowzero", 0)
    shape = constant(op, 2, Int64)
    all(>=(-1), shape) && count(==(-1), shape) <= 1 && length(shape) <= MAXIMUM_RANK ||
        refuse(op, "the shape $shape is impossible")
    Reshape(vec(shape))
end

operator(op -> bind(op, Concat(int(op, "axis"))), "Concat"; any_input=true)

operator("Transpose") do op
    perm = ints(op, "perm")
    n = length(perm)
    sort(perm) == 0:n-1 || refuse(op, "perm = $perm is no permutation")
    Transpose(Tuple(n - perm[n-d+1] for d in 1:n))
end
