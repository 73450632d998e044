// grid: the number of a workgroup in a grid that had to be folded into rows (a grid's axis stops at 65,535).

fn workgroup_number(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return id.y * count.x + id.x;
}
