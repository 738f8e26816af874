module "eks" {
  source  = "terraform-aws-modules/eks/aws"
  version = "~> 21.19"

  name               = var.name
  kubernetes_version = var.kubernetes_version

  endpoint_public_access                   = true
  endpoint_public_access_cidrs             = var.api_cidrs
  enable_cluster_creator_admin_permissions = true

  vpc_id                   = module.vpc.vpc_id
  subnet_ids               = module.vpc.private_subnets
  control_plane_subnet_ids = module.vpc.intra_subnets

  addons = {
    coredns                = {}
    kube-proxy             = {}
    eks-pod-identity-agent = { before_compute = true }
    vpc-cni = {
      before_compute = true
      # Without it the network policies of the charts have no effect.
      configuration_values = jsonencode({ enableNetworkPolicy = "true" })
    }
    aws-efs-csi-driver = {
      pod_identity_association = [{
        role_arn        = aws_iam_role.efs_csi.arn
        service_account = "efs-csi-controller-sa"
      }]
    }
  }

  # What must run before Karpenter makes nodes: Karpenter, KEDA, Ebbtide, CoreDNS, Prometheus.
  eks_managed_node_groups = {
    platform = {
      ami_type       = "BOTTLEROCKET_x86_64"
      instance_types = ["m7i.large"]
      min_size       = 3
      max_size       = 4
      desired_size   = 3
      labels         = { "scans/platform" = "true" }
    }
  }

  node_security_group_tags = { "karpenter.sh/discovery" = var.name }
}

# The rights of Karpenter and of its nodes, and the queue that announces the end of spot nodes.
module "karpenter" {
  source  = "terraform-aws-modules/eks/aws//modules/karpenter"
  version = "~> 21.19"

  cluster_name                    = module.eks.cluster_name
  namespace                       = "karpenter"
  service_account                 = "karpenter"
  create_pod_identity_association = true
  queue_name                      = var.name
  node_iam_role_name              = "${var.name}-node"
  node_iam_role_use_name_prefix   = false
}
