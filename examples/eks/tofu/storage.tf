# The source store: one mirror of each repository for all scans.
resource "aws_efs_file_system" "sources" {
  creation_token  = var.name
  encrypted       = true
  throughput_mode = "elastic"

  # Sources that nobody has scanned for a month cost less; they can be fetched again, so there is no backup.
  lifecycle_policy {
    transition_to_ia = "AFTER_30_DAYS"
  }

  lifecycle_policy {
    transition_to_primary_storage_class = "AFTER_1_ACCESS"
  }

  tags = { Name = "${var.name}-sources" }
}

resource "aws_security_group" "sources" {
  name_prefix = "${var.name}-sources-"
  description = "NFS, for the nodes of ${var.name}"
  vpc_id      = module.vpc.vpc_id

  ingress {
    description     = "NFS"
    from_port       = 2049
    to_port         = 2049
    protocol        = "tcp"
    security_groups = [module.eks.node_security_group_id]
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_efs_mount_target" "sources" {
  count = length(local.zones)

  file_system_id  = aws_efs_file_system.sources.id
  subnet_id       = module.vpc.private_subnets[count.index]
  security_groups = [aws_security_group.sources.id]
}

data "aws_iam_policy_document" "pod_identity" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "efs_csi" {
  name_prefix        = "${var.name}-efs-csi-"
  assume_role_policy = data.aws_iam_policy_document.pod_identity.json
}

resource "aws_iam_role_policy_attachment" "efs_csi" {
  role       = aws_iam_role.efs_csi.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonEFSCSIDriverPolicy"
}
